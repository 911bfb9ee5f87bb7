"""The Fine-tune dock: what is reviewed, the training as it runs, the adapters there are."""
