"""What is read off a cell's graph: Weisfeiler-Lehman colours, the effective graph, structural features."""
