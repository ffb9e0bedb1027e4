"""Data: the catalogue and the import of data sets into the sample table.

from saliency_r1.data.download import download
from saliency_r1.data.table import read_samples

table = download(params.download, root=Path("."), out=Path("artifacts/download"))
table = read_samples(Path("artifacts/download"))
"""
