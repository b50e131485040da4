-- definitions: comments, labels, expressions, functions, views, options, settings
SELECT 'comment on ' || pg_describe_object(classoid, objoid, objsubid) AS place, description AS said
FROM pg_description WHERE objoid >= 16384  -- what initdb makes has lower ones
UNION ALL
SELECT 'comment on ' || pg_describe_object(classoid, objoid, 0), description FROM pg_shdescription
UNION ALL
SELECT 'security label', label FROM pg_seclabels
UNION ALL
SELECT 'labels of type ' || format_type(enumtypid, NULL), enumlabel FROM pg_enum
UNION ALL
SELECT 'type ' || format_type(oid, NULL), typdefault FROM pg_type WHERE typdefault IS NOT NULL AND oid >= 16384
UNION ALL
SELECT 'default of ' || adrelid::regclass, pg_get_expr(adbin, adrelid) FROM pg_attrdef
UNION ALL
SELECT pg_describe_object('pg_constraint'::regclass, oid, 0), pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'
UNION ALL
SELECT 'index ' || indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index
WHERE indexrelid >= 16384 AND (indpred IS NOT NULL OR indexprs IS NOT NULL)
UNION ALL
SELECT 'bounds of ' || oid::regclass, pg_get_expr(relpartbound, oid) FROM pg_class WHERE relispartition
UNION ALL
SELECT pg_describe_object('pg_proc'::regclass, oid, 0), concat_ws(E'\n', prosrc, pg_get_function_sqlbody(oid),
    pg_get_function_arguments(oid), array_to_string(proconfig, E'\n')) FROM pg_proc
WHERE oid >= 16384 AND NOT EXISTS (
    SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid AND deptype = 'e')
UNION ALL
SELECT pg_describe_object('pg_rewrite'::regclass, oid, 0), pg_get_ruledef(oid) FROM pg_rewrite WHERE oid >= 16384
UNION ALL
SELECT pg_describe_object('pg_policy'::regclass, oid, 0), concat_ws(E'\n', pg_get_expr(polqual, polrelid),
    pg_get_expr(polwithcheck, polrelid)) FROM pg_policy
UNION ALL
SELECT pg_describe_object('pg_trigger'::regclass, oid, 0), pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL
SELECT pg_describe_object('pg_statistic_ext'::regclass, oid, 0), pg_get_statisticsobjdef(oid) FROM pg_statistic_ext
UNION ALL
SELECT 'publication of ' || prrelid::regclass, pg_get_expr(prqual, prrelid) FROM pg_publication_rel WHERE prqual IS NOT NULL
UNION ALL
SELECT 'options of ' || pg_describe_object(class, oid, 0), value
FROM (
    SELECT 'pg_foreign_server'::regclass AS class, oid, srvoptions AS options FROM pg_foreign_server
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, fdwoptions FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'pg_class'::regclass, ftrelid, ftoptions FROM pg_foreign_table
) o CROSS JOIN LATERAL (SELECT option_value FROM pg_options_to_table(options)) named (value)
UNION ALL
SELECT 'dictionary ' || dictname, dictinitoption FROM pg_ts_dict WHERE dictinitoption IS NOT NULL AND oid >= 16384
UNION ALL
SELECT 'settings of ' || coalesce('role ' || rolname, 'everybody'), substring(entry FROM '=(.*)$')
FROM pg_db_role_setting LEFT JOIN pg_roles r ON r.oid = setrole CROSS JOIN LATERAL unnest(setconfig) entry
WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
