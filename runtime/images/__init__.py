"""Images: files and arrays as pixels, many of them at a time, pictures in rows."""
