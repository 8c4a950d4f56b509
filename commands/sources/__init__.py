"""sources: where the pictures of `predict` come from: files, folders, addresses, videos, cameras."""
