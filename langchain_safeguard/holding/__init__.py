"""Answers and results of tools that wait, outside of any state, while a person decides about them.

Nothing is imported here: what is held in memory needs no database.
"""
