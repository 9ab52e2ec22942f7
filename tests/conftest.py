"""Settings of all tests."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("no time limit", deadline=None)  # a busy machine is no failure
settings.load_profile("no time limit")
