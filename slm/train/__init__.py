"""Training and evaluation of a GPT in PyTorch."""
