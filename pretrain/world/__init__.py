"""The embedded pictures: what they show (`objects.yaml`), before what, and how they are composed."""
