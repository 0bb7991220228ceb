"""Sources of videos: one module for each format in which publishers distribute annotations and media."""
