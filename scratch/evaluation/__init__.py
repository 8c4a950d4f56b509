"""evaluation: how good are the boxes? postprocess (pixels) → coco_eval (AP) → pictures (eyes)."""
