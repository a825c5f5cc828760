"""What drew and fetched the pictures in assets/."""
