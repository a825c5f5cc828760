"""What is asked for, checked before anything heavy loads. Plain data, without torch.

request       `GenerationRequest`, `Progress`, `GenerationResult`
checks        each value of a request: what is allowed
references    what it refers to: images, and saved styles in the place of style images
styles        folders of saved styles: list, find, add, rename, delete
modes         what a request makes of what it is given, by name
readable      prompts in scripts that the model does not read
translation   the owner's translator of prompts
"""
