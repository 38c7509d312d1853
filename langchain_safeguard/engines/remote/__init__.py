"""Runs language models on servers that speak OpenAI's completions protocol.

Prompts are put into tokens here; the servers give the probabilities of what comes next. A
`Replica` is one server, a `Pool` chooses among several, a `Dialect` is what one of them was found
to be able to do.
"""
