-- pgvector, made by whoever may: not every owner of a database does.
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE insufficient_privilege USING
            MESSAGE = format('role %s may not install pgvector in database %s', current_user, current_database()),
            HINT = 'Let an administrator run CREATE EXTENSION vector there once, then run this again.';
    WHEN feature_not_supported OR undefined_file THEN
        RAISE feature_not_supported USING
            MESSAGE = 'pgvector is not installed on this server',
            HINT = 'Install pgvector 0.8 or later for this PostgreSQL (package postgresql-NN-pgvector), then run this again.';
END $$;
