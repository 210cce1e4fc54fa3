"""Models on the Hugging Face Hub: uploaded with a page about them, and downloaded.

Only the two files of `chartae.persistence` are downloaded, and nothing of a repository is executed.
The package huggingface_hub, the extra ``hub``, is imported when it is needed.
"""

__all__ = ["Card", "check_hub_id", "fetch", "is_hub_id", "push"]

from chartae.hub.card import Card
from chartae.hub.remote import check_hub_id, fetch, is_hub_id, push
