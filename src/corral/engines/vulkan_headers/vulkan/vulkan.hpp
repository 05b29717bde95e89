// Vulkan headers older than 1.3.268 (Debian 12's) lack VK_EXT_layer_settings, which llama.cpp names without a guard.
// These are its declarations as the specification has them; the extension itself is used with a validation layer only.
#pragma once
#pragma GCC system_header
#include_next <vulkan/vulkan.hpp>
#if !defined(VK_EXT_layer_settings)
#define VK_EXT_layer_settings 1
#include <vector>
namespace vk {
enum class LayerSettingTypeEXT : int { eBool32 = 0 };
struct LayerSettingEXT {
    const char * pLayerName;
    const char * pSettingName;
    LayerSettingTypeEXT type;
    uint32_t valueCount;
    const void * pValues;
};
struct LayerSettingsCreateInfoEXT {
    VkStructureType sType = static_cast<VkStructureType>(1000496000);
    const void * pNext = nullptr;
    uint32_t settingCount;
    const LayerSettingEXT * pSettings;
    explicit LayerSettingsCreateInfoEXT(const std::vector<LayerSettingEXT> & settings)
        : settingCount(static_cast<uint32_t>(settings.size())), pSettings(settings.data()) {}
};
}
#endif
