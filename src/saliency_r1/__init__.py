"""Saliency-R1: unified saliency reasoning with a multimodal language model and a referring segmenter."""
