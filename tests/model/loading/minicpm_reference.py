"""MiniCPM's forward as its publishers describe it, in plain loops: no transformers, nothing of this package."""

import math

import torch


def minicpm_states(weights: dict[str, torch.Tensor], values: dict[str, object], ids: torch.Tensor) -> torch.Tensor:
    """Hidden states (length, H) after the final norm of one text, in float64, one head and one position at a time."""
    w = {name: weight.double() for name, weight in weights.items()}
    num_heads, num_kv_heads = values["num_attention_heads"], values["num_key_value_heads"]
    num_layers, eps = values["num_hidden_layers"], values["rms_norm_eps"]
    width = values["hidden_size"] // num_heads
    scaling = values["rope_scaling"]["factor"] if values.get("rope_scaling") else 1.0
    theta = values.get("rope_theta", 10000.0)
    residual_scale = values["scale_depth"] / math.sqrt(num_layers)

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight

    def rotate(x: torch.Tensor) -> torch.Tensor:
        out = torch.empty_like(x)  # (length, width)
        for position in range(len(x)):
            for i in range(width // 2):
                angle = position / scaling * theta ** (-2 * i / width)
                a, b = x[position, i], x[position, i + width // 2]
                out[position, i] = a * math.cos(angle) - b * math.sin(angle)
                out[position, i + width // 2] = b * math.cos(angle) + a * math.sin(angle)
        return out

    x = w["model.embed_tokens.weight"][ids] * values["scale_emb"]
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}."
        h = norm(x, w[f"{prefix}input_layernorm.weight"])
        q, k, v = (h @ w[f"{prefix}self_attn.{name}_proj.weight"].T for name in "qkv")
        heads = []
        for head in range(num_heads):
            kv = head // (num_heads // num_kv_heads)
            q_head = rotate(q[:, head * width : (head + 1) * width])
            k_head = rotate(k[:, kv * width : (kv + 1) * width])
            scores = q_head @ k_head.T / math.sqrt(width)
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
            heads.append(scores.softmax(-1) @ v[:, kv * width : (kv + 1) * width])
        x = x + torch.cat(heads, -1) @ w[f"{prefix}self_attn.o_proj.weight"].T * residual_scale
        h = norm(x, w[f"{prefix}post_attention_layernorm.weight"])
        gate = h @ w[f"{prefix}mlp.gate_proj.weight"].T
        inner = gate / (1 + torch.exp(-gate)) * (h @ w[f"{prefix}mlp.up_proj.weight"].T)
        x = x + inner @ w[f"{prefix}mlp.down_proj.weight"].T * residual_scale
    return norm(x, w["model.norm.weight"])
