import torch

# Small networks gain nothing from threads, and tests that run side by side lose by them.
torch.set_num_threads(1)
