"""Documents that one program writes and another reads: each once, with its schema, file name and size limit.

Two versions of Concordat meet in these files, so a change here is a change of the protocol. Unknown members are
ignored on reading; an unknown schema is refused.
"""
