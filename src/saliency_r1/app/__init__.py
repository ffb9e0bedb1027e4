"""The page one can play with: `saliency-r1 app`. What it does is here without Gradio; `page` alone draws with it."""
