"""Saliency-R1: unified saliency reasoning with a multimodal language model and a referring segmenter."""

import os

from saliency_r1 import moved

# Read by OpenMP when torch is loaded. By default its threads spin while they wait for each other; on a machine that has
# anything else to do, that makes small models up to seven times slower (measured: encoding 32 images, two threads).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

moved.install()
