"""From videos to batches: media files → records in ArrayRecord files → Grain batches."""
