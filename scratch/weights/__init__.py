"""weights: trained weights from elsewhere, and ours for others.

Read: download → download_many → convert → huggingface → elsewhere → hub → reading → whole.
"""
