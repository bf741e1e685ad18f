"""Code systems, ConceptMaps and ValueSets, applied as joins."""
