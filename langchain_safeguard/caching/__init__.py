"""Verdicts that are known already: in this process, and in Redis for several.

Nothing is imported here: the cache needs no Redis.
"""
