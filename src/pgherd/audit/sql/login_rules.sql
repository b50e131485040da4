-- rules of who may log in
SELECT type, database, user_name AS roles, address, auth_method AS method, file_name AS file, line_number AS line
FROM pg_hba_file_rules
