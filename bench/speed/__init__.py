"""Speed and memory of aggregation, beside ByzFL, Flower and what the machine can do at best."""
