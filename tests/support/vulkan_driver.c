/* A Vulkan driver in front of a real one, for tests of what goes wrong: it is compiled with REAL, the real driver's
 * library, and FAULTS, a folder. A file in that folder makes it fail:
 *   hang   it never answers the loader
 *   crash  it aborts when the loader asks it
 *   lost   each submission of work says VK_ERROR_DEVICE_LOST, as when a GPU falls off the bus
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vulkan/vulkan_core.h>

typedef VkResult (*negotiate_t)(uint32_t *);
static PFN_vkGetInstanceProcAddr real_instance;
static PFN_vkGetDeviceProcAddr real_device;
static PFN_vkQueueSubmit real_submit;

static void *real(const char *name) {
    static void *library;
    if (library == NULL && (library = dlopen(REAL, RTLD_NOW | RTLD_LOCAL)) == NULL) abort();
    return dlsym(library, name);
}

static void faults(void) {
    while (access(FAULTS "/hang", F_OK) == 0) sleep(1);
    if (access(FAULTS "/crash", F_OK) == 0) abort();
}

static VkResult submit(VkQueue queue, uint32_t count, const VkSubmitInfo *work, VkFence fence) {
    return access(FAULTS "/lost", F_OK) == 0 ? VK_ERROR_DEVICE_LOST : real_submit(queue, count, work, fence);
}

static PFN_vkVoidFunction device_proc(VkDevice device, const char *name) {
    PFN_vkVoidFunction found = real_device(device, name);
    if (strcmp(name, "vkQueueSubmit") != 0) return found;
    real_submit = (PFN_vkQueueSubmit)found;
    return (PFN_vkVoidFunction)submit;
}

PFN_vkVoidFunction vk_icdGetInstanceProcAddr(VkInstance instance, const char *name) {
    faults();
    if (real_instance == NULL) real_instance = (PFN_vkGetInstanceProcAddr)real("vk_icdGetInstanceProcAddr");
    PFN_vkVoidFunction found = real_instance(instance, name);
    if (found == NULL || strcmp(name, "vkGetDeviceProcAddr") != 0) return found;
    real_device = (PFN_vkGetDeviceProcAddr)found;
    return (PFN_vkVoidFunction)device_proc;
}

PFN_vkVoidFunction vk_icdGetPhysicalDeviceProcAddr(VkInstance instance, const char *name) {
    typedef PFN_vkVoidFunction (*physical_t)(VkInstance, const char *);
    physical_t asked = (physical_t)real("vk_icdGetPhysicalDeviceProcAddr");
    return asked == NULL ? NULL : asked(instance, name);
}

VkResult vk_icdNegotiateLoaderICDInterfaceVersion(uint32_t *version) {
    faults();
    return ((negotiate_t)real("vk_icdNegotiateLoaderICDInterfaceVersion"))(version);
}
