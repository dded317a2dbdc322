"""Stand-ins for the chat templates of seven families of models, written for the tests.

Each has the features of its family that matter here: how it marks turns, where it writes tools, calls and results, what
it does with a system message, and whether it drops the thinking of earlier turns.
"""

_CALLS = (
    '{% for call in m.tool_calls %}\n<tool_call>\n{"name": "{{ call.function.name }}", "arguments": '
    "{{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}"
)
_TOOLS = "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"

QWEN25 = (
    "{% if tools %}<|im_start|>system\n{{ messages[0].content if messages[0].role == 'system' else 'You help.' }}\n"
    f"<tools>\n{_TOOLS}</tools><|im_end|>\n{{% elif messages[0].role == 'system' %}}<|im_start|>system\n"
    "{{ messages[0].content }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n{% elif m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    f"{{% if m.tool_calls %}}{_CALLS}{{% endif %}}<|im_end|>\n{{% endif %}}{{% endfor %}}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    "{% if tools %}<|im_start|>system\n{{ messages[0].content ~ '\n' if messages[0].role == 'system' else '' }}"
    f"<tools>\n{_TOOLS}</tools><|im_end|>\n{{% elif messages[0].role == 'system' %}}<|im_start|>system\n"
    "{{ messages[0].content }}<|im_end|>\n{% endif %}"
    "{% set ns = namespace(last=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>user\n<tool_response>\n{{ m.content }}\n"
    "</tool_response><|im_end|>\n{% elif m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% set thought = m.reasoning_content if m.reasoning_content is string else '' %}"
    "{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.index0 > ns.last and thought %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n{% endif %}{{ said }}"
    f"{{% if m.tool_calls %}}{_CALLS}{{% endif %}}<|im_end|>\n"
    "{% elif m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set said = messages[0].content | trim %}"
    "{% set rest = messages[1:] %}{% else %}{% set said = '' %}{% set rest = messages %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\n{% if tools %}Environment: ipython\n{% endif %}"
    "{% if tools %}{% for tool in tools %}{{ tool | tojson }}\n\n{% endfor %}{% endif %}{{ said }}<|eot_id|>"
    '{% for m in rest %}{% if m.tool_calls %}<|start_header_id|>assistant<|end_header_id|>\n\n{"name": '
    '"{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}'
    "<|eot_id|>{% elif m.role == 'tool' %}<|start_header_id|>ipython<|end_header_id|>\n\n{{ m.content | tojson }}"
    "<|eot_id|>{% else %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
SMOLLM3 = (
    "<|im_start|>system\n## Metadata\n\nReasoning Mode: {{ '/think' if enable_thinking | default(true) else "
    "'/no_think' }}\n\n{% if messages[0].role == 'system' %}## Custom Instructions\n\n{{ messages[0].content | trim }}"
    f"\n\n{{% endif %}}{{% if tools %}}<tools>\n{_TOOLS}</tools>\n{{% endif %}}<|im_end|>\n"
    "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'tool' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant\n{{ m.content.lstrip('\n') }}"
    f"{{% if m.tool_calls %}}{_CALLS}{{% endif %}}<|im_end|>\n{{% endif %}}{{% endfor %}}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking | default(true) %}<think>\n\n</think>\n{% endif %}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content ~ '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ first if loop.first else '' }}"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI4 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set said = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set said = '' %}{% set rest = messages %}{% endif %}"
    "{% set users = rest | selectattr('role', 'equalto', 'user') | list %}{% set ns = namespace(seen=0) %}"
    "{% for m in rest %}{% if m.role == 'user' %}{% set ns.seen = ns.seen + 1 %}"
    "{% if tools and ns.seen == users | length %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    "[INST] {% if said and ns.seen == users | length %}{{ said }}\n\n{% endif %}{{ m.content }}[/INST]"
    '{% elif m.tool_calls %}[TOOL_CALLS] [{% for call in m.tool_calls %}{"name": "{{ call.function.name }}", '
    '"arguments": {{ call.function.arguments | tojson }}}{% endfor %}]{{ eos_token }}'
    "{% elif m.role == 'tool' %}[TOOL_RESULTS] {\"content\": {{ m.content }}}[/TOOL_RESULTS]"
    "{% elif m.role == 'assistant' %} {{ m.content | trim }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"
)
TEMPLATES = {
    "qwen2.5": QWEN25,
    "qwen3": QWEN3,
    "llama3": LLAMA3,
    "smollm3": SMOLLM3,
    "gemma": GEMMA,
    "phi4": PHI4,
    "mistral": MISTRAL,
}
WITHOUT_TOOLS = ("gemma", "phi4")
SPECIAL_TOKENS = [
    *("<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
]
