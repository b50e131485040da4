"""The command line: holds no logic of its own, only words, tables and progress bars."""
