"""Files as people have them, each kind read in one place: the importer, the evaluator and `predict` share these rules.

from saliency_r1.inputs.pictures import read_picture
from saliency_r1.inputs.masks import read_ids, read_mask

Whatever cannot be used is an `InputError` that names the file, what was found in it and what to do.
"""
