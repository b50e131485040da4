"""What a query may be made of: nodes of the parse tree, functions, types, operators. What is not listed is refused.

Functions are listed that only compute from their arguments. Left out on purpose, though harmless at first sight: what
runs SQL given as text (query_to_xml, ts_stat), reads settings or catalogs (current_setting, has_table_privilege,
pg_get_*), resolves names (to_regclass), waits or locks, or makes very long values out of short ones (repeat, lpad).
Source: PostgreSQL 18 manual, chapter 9; pgvector 0.8 README.
"""

from __future__ import annotations

from pglast import ast

NODES: frozenset[type] = frozenset(
    {
        ast.RawStmt,
        ast.SelectStmt,
        ast.WithClause,
        ast.CommonTableExpr,
        ast.ResTarget,
        ast.RangeVar,
        ast.RangeSubselect,
        ast.RangeFunction,
        ast.JoinExpr,
        ast.Alias,
        ast.ColumnDef,
        ast.ColumnRef,
        ast.A_Star,
        ast.A_Const,
        ast.Integer,
        ast.Float,
        ast.Boolean,
        ast.String,
        ast.BitString,
        ast.A_Expr,
        ast.BoolExpr,
        ast.NullTest,
        ast.BooleanTest,
        ast.CaseExpr,
        ast.CaseWhen,
        ast.CoalesceExpr,
        ast.MinMaxExpr,
        ast.A_ArrayExpr,
        ast.A_Indirection,
        ast.A_Indices,
        ast.RowExpr,
        ast.SubLink,
        ast.FuncCall,
        ast.NamedArgExpr,
        ast.SQLValueFunction,
        ast.TypeCast,
        ast.TypeName,
        ast.CollateClause,
        ast.SortBy,
        ast.WindowDef,
        ast.GroupingSet,
        ast.GroupingFunc,
    }
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTIONS = (
    _words(  # aggregates and windows
        """
        any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or count every json_agg json_object_agg jsonb_agg
        jsonb_object_agg max min string_agg sum corr covar_pop covar_samp regr_avgx regr_avgy regr_count
        regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy stddev stddev_pop stddev_samp variance var_pop
        var_samp mode percentile_cont percentile_disc rank dense_rank percent_rank cume_dist row_number ntile lag lead
        first_value last_value nth_value
        """
    )
    | _words(  # numbers
        """
        abs cbrt ceil ceiling degrees div exp factorial floor gcd lcm ln log log10 min_scale mod pi power pow radians
        round scale sign sqrt trim_scale trunc width_bucket acos asin atan atan2 cos cot sin tan acosd asind atand
        cosd sind tand sinh cosh tanh random
        """
    )
    | _words(  # text
        """
        ascii bit_length btrim casefold char_length character_length chr concat concat_ws initcap left length lower
        ltrim md5 normalize octet_length overlay position quote_literal regexp_count regexp_instr regexp_like
        regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr replace
        reverse right rtrim split_part starts_with string_to_array string_to_table strpos substr substring to_ascii
        to_hex translate upper like_escape similar_to_escape is_normalized encode decode sha256 sha512
        """
    )
    | _words(  # dates and times
        """
        age clock_timestamp date_bin date_part date_trunc extract isfinite justify_days justify_hours
        justify_interval make_date make_interval make_time make_timestamp make_timestamptz now overlaps
        statement_timestamp timezone to_char to_date to_number to_timestamp transaction_timestamp
        """
    )
    | _words(  # arrays, rows, JSON
        """
        array_append array_cat array_dims array_length array_lower array_ndims array_position array_positions
        array_prepend array_remove array_replace array_sort array_reverse array_to_string array_upper cardinality
        trim_array unnest generate_series generate_subscripts array_to_json json_array_elements
        json_array_elements_text json_array_length json_build_array json_build_object json_each json_each_text
        json_extract_path json_extract_path_text json_object json_object_keys json_strip_nulls json_to_record
        json_to_recordset json_typeof jsonb_array_elements jsonb_array_elements_text jsonb_array_length
        jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text
        jsonb_insert jsonb_object jsonb_object_keys jsonb_path_exists jsonb_path_match jsonb_path_query
        jsonb_path_query_array jsonb_path_query_first jsonb_pretty jsonb_set jsonb_strip_nulls jsonb_to_record
        jsonb_to_recordset jsonb_typeof row_to_json to_json to_jsonb num_nulls num_nonnulls
        """
    )
    | _words(  # ranges, uuids, addresses
        """
        isempty lower_inc lower_inf range_merge upper_inc upper_inf int4range int8range numrange daterange tsrange
        tstzrange uuid_extract_timestamp uuid_extract_version family host masklen network
        """
    )
    | _words(  # text search
        """
        numnode phraseto_tsquery plainto_tsquery querytree setweight strip to_tsquery to_tsvector ts_delete ts_filter
        ts_headline ts_rank ts_rank_cd tsquery_phrase tsvector_to_array websearch_to_tsquery
        """
    )
    | _words(  # pgvector
        """
        binary_quantize cosine_distance hamming_distance inner_product jaccard_distance l1_distance l2_distance
        l2_norm l2_normalize subvector vector_dims vector_norm
        """
    )
)

TYPES = _words(
    """
    bool int2 int4 int8 smallint integer int bigint numeric decimal float4 float8 real text varchar bpchar char
    character date time timetz timestamp timestamptz interval uuid json jsonb jsonpath bytea bit varbit inet cidr
    tsvector tsquery int4range int8range numrange daterange tsrange tstzrange vector halfvec sparsevec
    """
)

OPERATORS = _words(
    """
    + - * / % ^ |/ ||/ @ = <> != < > <= >= || ~ ~* !~ !~* ~~ ~~* !~~ !~~* -> ->> #> #>> #- @> <@ ? ?| ?& @? @@ && & |
    # << >> &< &> -|- ^@ !! <-> <=> <#> <+> <~> <%>
    """
)

SCHEMAS = frozenset({"pg_catalog", "public"})
"""Where a qualified function, type or operator may come from; extensions such as pgvector are in public."""

MADE_BY_SERVER = _words("array bool case coalesce exists greatest key least nullif ordinality row value")
"""Names that PostgreSQL gives to columns of its own accord, besides those of functions and types."""

SYSTEM_COLUMNS = frozenset({"tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"})
