"""What runs on a model: training, evaluation, the hub's canary check, and the demo's data. Imports nothing heavy."""
