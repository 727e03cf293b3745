"""What a search hands back, its pictures, and all of it as one HTML page that needs no network."""
