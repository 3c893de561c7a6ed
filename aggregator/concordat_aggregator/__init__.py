"""The aggregator Job: judges every update of a round anew from its bytes, and makes the candidate adapter."""
