"""The comparison: protocols, runner, measures, records, tables and the command line."""
