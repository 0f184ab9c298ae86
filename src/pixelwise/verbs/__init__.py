"""What a user can do, a module for each thing; `pixelwise.api` names all of it."""
