"""analysis: what a run did and what a model is made of."""
