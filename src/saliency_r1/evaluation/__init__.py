"""Predictions on disk against ground truth on disk: folders, COCO files, pages, and the half of the stage metrics."""
