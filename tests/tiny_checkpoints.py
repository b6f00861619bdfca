"""Checkpoints of stock families with random weights and a made-up tokenizer: what they say means nothing, but shapes,
padding, prompts and hidden states are those of the real ones. Needs torch and transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = "yes no red blue hearts spades what is the color of this picture group interest answer with one word"
IMAGE = "<image>"
SPECIAL = ["<pad>", "<s>", "</s>", IMAGE, "<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<end_of_utterance>"]
SPECIAL += ["<fake_token_around_image>", "<global-img>"]
TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ IMAGE }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' answer: ' }}{% endif %}"
)
TEXT = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 8,
    "initializer_range": 0.3,
}


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bytes_and_words = Tokenizer(models.BPE())
    bytes_and_words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_and_words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet)
    bytes_and_words.train_from_iterator([f"{WORDS} {WORDS.title()}"] * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bytes_and_words,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": IMAGE},
    )


def _save(model: Any, processor: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def llava(folder: Path) -> Path:
    """One size for all pictures, no chat template."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = _tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**CLIP, image_size=32),
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
    )
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        image_token=IMAGE,
        num_additional_image_tokens=1,
    )
    return _save(LlavaForConditionalGeneration(config), processor, folder)


def qwen2_vl(folder: Path) -> Path:
    """As many visual tokens as a picture's size asks for, positions in three axes."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = _tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]},
        },
        vision_config={"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 48, "initializer_range": 0.3},
        image_token_id=ids(IMAGE),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    tokenizer.image_token, tokenizer.video_token = IMAGE, "<|video_pad|>"
    size = {"shortest_edge": 56 * 56, "longest_edge": 112 * 112}
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(size=size),
        tokenizer,
        Qwen2VLVideoProcessor(size=size),
        chat_template=TEMPLATE.replace("IMAGE", f"'<|vision_start|>{IMAGE}<|vision_end|>'"),
    )
    return _save(Qwen2VLForConditionalGeneration(config), processor, folder)


def idefics3(folder: Path) -> Path:
    """The family of SmolVLM: pictures cut into tiles, nested lists of pictures."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
        LlamaConfig,
    )

    tokenizer = _tokenizer()
    config = Idefics3Config(
        vision_config={**CLIP, "image_size": 32},
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        scale_factor=2,
    )
    images = Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = Idefics3Processor(
        images, tokenizer, image_seq_len=4, chat_template=TEMPLATE.replace("IMAGE", f"'{IMAGE}'")
    )
    return _save(Idefics3ForConditionalGeneration(config), processor, folder)


FAMILIES: dict[str, Callable[[Path], Path]] = {"llava": llava, "qwen2_vl": qwen2_vl, "idefics3": idefics3}
