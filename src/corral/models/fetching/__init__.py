"""Getting a model from a registry: `downloads` owns every download, `pull` does one, `fetch` one of its blobs."""
