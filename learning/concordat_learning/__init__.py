"""What runs in a site's Jobs: training of one LoRA factor, evaluation, and the demo's data. Imports nothing heavy."""
