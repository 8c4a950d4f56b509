"""evaluation: how good are the boxes? coco_eval (pixels, AP) → evaluate (a model) → summary (a table) → the rest."""
