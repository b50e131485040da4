-- libraries in settings files that are not in effect
SELECT f.name, f.setting, f.sourcefile AS file FROM pg_file_settings f JOIN pg_settings s USING (name)
WHERE f.name LIKE '%\_preload\_libraries' AND f.setting IS DISTINCT FROM s.setting AND NOT EXISTS (
    SELECT FROM pg_file_settings later WHERE later.name = f.name AND later.seqno > f.seqno)
