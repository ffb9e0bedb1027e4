"""Any multimodal model on the same pictures, through the same interface and segmenter, in one table."""
