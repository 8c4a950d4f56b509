"""weights: trained weights from elsewhere, and ours for others. Read: download → download_many → reading → convert."""
