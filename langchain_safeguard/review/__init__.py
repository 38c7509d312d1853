"""The queue in which held texts wait for a person: on SQLite or PostgreSQL.

Nothing is imported here: a ticket needs no database, and its readers need not have one installed.
"""
