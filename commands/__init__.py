"""commands: what detr_scratch.py can do beside training; each takes its arguments as one frozen dataclass."""
