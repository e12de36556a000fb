"""What `import` does for each kind of source: images, packed arrays, coordinates, vectors."""
